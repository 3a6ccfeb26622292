"""How far apart two domains are, how sure that is, and whether transfer will pay."""
