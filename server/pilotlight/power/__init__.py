"""What is known of the machine: where its power comes from, how hot it is, who else uses it."""
