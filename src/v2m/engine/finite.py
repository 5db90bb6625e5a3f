NOWHERE = "nowhere"


def find_nonfinite(step, model):
    return NOWHERE
