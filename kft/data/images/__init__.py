"""Images: reading folders and tables of files, pixels, and the digits of scikit-learn."""
