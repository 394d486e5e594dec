"""What the answer's rows say: the tables of its pages, as lines of Markdown."""
