"""What is alike in all tests of the policy."""

from hypothesis import settings

# Times tell nothing on a busy machine, and no files are left behind.
settings.register_profile("quiet", deadline=None, database=None)
settings.load_profile("quiet")
