"""Golden of text to video in the form of the shipped family. Names: see pipeline.py, settings: pipeline_t2v.py."""
from pipeline_t2v import make

if __name__ == "__main__":
    make("pipeline_t2v_expand")
