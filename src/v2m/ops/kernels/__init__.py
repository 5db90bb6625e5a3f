"""Kernels: the computations of the operators for one kind of device per module, without autograd.

``cpu`` (C++), ``triton`` (GPUs) and ``pytorch`` (anything) compute in float32. Of an operator whose kernels
are called ``NAME``, a module has two functions. ``NAME_forward`` takes the record of arguments and returns
the output. ``NAME_backward`` takes the gradient of the output and the record, and returns the record with
gradients in the places of the tensors. What ``cpu`` or ``triton`` does not have, ``pytorch`` computes.

Shapes: B batch, H grid height, W grid width, D channels, N state size, R rank of the step size, K taps.
"""
