from skyscraper.errors import SkyscraperError


class ProfileError(SkyscraperError):
    """A profile that cannot be read, or footage that nothing can be learned from."""
