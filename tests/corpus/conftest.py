"""Property tests have no deadline: machines differ, and other tests run beside them."""

from hypothesis import settings

settings.register_profile("patient", deadline=None)
settings.load_profile("patient")
