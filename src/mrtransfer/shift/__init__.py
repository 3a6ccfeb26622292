"""How far apart two domains are: tables of features, distances with their uncertainty over subjects, transferability."""
