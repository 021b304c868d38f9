"""The version of the package, read by the build as well."""

__version__ = "0.2.0"
# The oldest version whose runs give the same numbers, which identifies results in the place of the package's own: a
# release that changes no number must not make them invalid. A change in one entry raises that entry's version.
NUMBERS_SINCE = "0.1.0"
