"""The oracle of meaning: the rule and the fold as pure values, and the promises they are held to."""
