"""Images and labels: listing, packing, cropping, splitting."""
