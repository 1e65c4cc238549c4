"""The base of nightshelf: configuration, dates, tables, paths, identity, logs, errors. No engine is imported here."""
