"""The simulated drive behind the demo recording. The tests and the benchmarks use it as well; the product does not.

`road` is the place, `vehicle` the car on it, `motion_sensors`, `lidar` and `camera` are what the car's sensors see,
`messages` their ROS form, and `recording` puts everything into one MCAP file.
"""
