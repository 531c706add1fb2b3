"""Key management services behind one seam."""
