"""Property-based tests have no time limit an example: on a busy machine that would be a matter of luck."""

import hypothesis

hypothesis.settings.register_profile("unhurried", deadline=None)
hypothesis.settings.load_profile("unhurried")
