"""What TensorBoard shows of runs and studies: views of their folders, that may be lost and made again."""
