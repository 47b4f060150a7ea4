"""What tests of several folders use: a run folder to read, a page to take apart, a browser."""
