"""Running layers: model files, tensors, activation codecs, tokens. No sockets, and nothing imported here."""
