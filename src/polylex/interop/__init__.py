"""Polylex inside other libraries, and their models inside Polylex. Each file needs the library it is named after."""
