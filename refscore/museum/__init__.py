"""The museum of mistakes: right programs of ten lines, and what people wrote instead. Chapter 17."""
