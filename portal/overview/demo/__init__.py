"""The whole story, told with real parts: processes, HTTP, forms and commands that a person would use."""
