"""Laws of the loss as pure functions of arrays: their forms, fits, and how they are chosen."""
