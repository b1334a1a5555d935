"""The layout of ataraxis-data-structures: one npy file an entry, archived to npz."""
