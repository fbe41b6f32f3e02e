"""The app as a Hugging Face Space: this folder's three files are all of it."""

from sharpv.app.desk import Desk, Limits
from sharpv.app.interface import serve

serve(Desk("pocket", limits=Limits(megabytes=30, seconds=120)), host="0.0.0.0", port=7860)
