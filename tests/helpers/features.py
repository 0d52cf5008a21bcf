"""Features of small datasets."""

from labelrank.features.encode import encode_parts


def encode_all(dataset, encoder, preprocess, **options):
    """Return the features of all samples, encoded as one part."""
    (encoded,) = encode_parts(dataset, [dataset.samples], encoder, preprocess, **options)
    return encoded
