"""Encoders: several features files of one dataset -> which encoder tells its classes apart best."""
