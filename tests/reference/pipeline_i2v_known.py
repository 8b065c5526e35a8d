"""Golden of image to video with a known first latent frame. Names: see pipeline.py, settings: pipeline_i2v.py."""
from pipeline_i2v import make

if __name__ == "__main__":
    make("pipeline_i2v_known")
