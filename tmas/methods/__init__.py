"""The methods by name. A new one is a file here, its names in the two lines below, and a config in conf/method/."""

from tmas.methods.tmas import TMAS, TMASSettings

METHODS = {"tmas": TMAS}
MethodSettings = TMASSettings
