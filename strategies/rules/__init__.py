"""Rules over all replies of a round at once, as those that bear bad clients.

Those in the table are Flower's own, asked as they are through `strategies.flower`. What stands here
is what of their parameters is a user's to set, and what they need to do what they are for.
"""
