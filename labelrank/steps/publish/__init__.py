"""Publishing a label map in a repository of the Hub: the plan, with what it changes there, and the commit."""
