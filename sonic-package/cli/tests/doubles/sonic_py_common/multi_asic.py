"""How many ASICs the switch has; a test that wants several says so."""

asics = 1


def is_multi_asic():
    return asics > 1
