"""Whether a model and its data can be measured at all: a battery of small trials, and how to mend what fails."""
