"""What losses of one kind compute alike: boxes, distances, angles, images, lattices."""
