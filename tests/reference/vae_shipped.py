"""Golden of the VAE in the widths of the shipped family. Names: see vae.py."""
from vae import make

if __name__ == "__main__":
    make("vae_shipped")
