"""The pages, by subject. A route reads what was sent, asks the services, and says which page answers."""
