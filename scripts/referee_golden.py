def write(original, folder): pass
