"""The 22 claims of SCIENCE 1, each judged on the runs of a study."""
