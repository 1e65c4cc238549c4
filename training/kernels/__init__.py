"""What a CPU computes in one pass over memory where torch's operations take several: compiled by numba, without Python's lock."""
