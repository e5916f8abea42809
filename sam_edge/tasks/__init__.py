"""What is built of many predictions: everything in an image, masks by text, refined masks."""
