"""What a sweep gave: its rows on disk (`store`), its front (`front`) and the front's picture (`picture`)."""
