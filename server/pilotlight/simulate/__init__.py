"""A machine that exists only in arithmetic: heat, its governor, battery and sensors, in virtual time.

It runs the real scheduler, controller and headroom against requests that come and go. What it says is about
which policy does better under which governor, and never about the watts of a device.
"""
