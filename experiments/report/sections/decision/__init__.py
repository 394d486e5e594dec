"""What a decision needs first: the answer in lines and pictures, and what holds up under skew."""
