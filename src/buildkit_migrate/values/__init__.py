"""Record keys, Go-equal JSON, times: values as they are stored."""
