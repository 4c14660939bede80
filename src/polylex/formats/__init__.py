"""Files of sparse vectors that other programs read and write. Needs NumPy; Parquet needs the extra polylex[parquet]."""
