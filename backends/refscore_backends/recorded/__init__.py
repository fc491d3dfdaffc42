"""Functions of arrays recorded as programs, and what is made of them: plain Python for a compiler, kernels for a GPU.

tape        arrays and numbers that write down what is done with them
structure   arguments taken apart into arrays, numbers and generators
program     what was written down
compiled    a function that becomes its programs
plain       a program as plain Python, for jax.jit and torch.compile
plan        a program as few kernels
cuda        these kernels in C
launch      a plan, run
"""
