"""The parts that the scripts of this toolkit are told with."""
