"""Golden of diffusers' WanImageToVideoPipeline with a last picture: see pipeline_i2v.py."""
from pipeline_i2v import make

if __name__ == "__main__":
    make("pipeline_flf2v")
