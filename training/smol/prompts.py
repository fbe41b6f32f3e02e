"""Text-only prompts, with which the language model's own knowledge is measured."""

from __future__ import annotations

# Asked before and after training, never trained on.
EVALUATION = (
    "What is the capital of France?", "Write a haiku about the sea.", "How many legs does a spider have?",
    "Explain why the sky is blue.", "Give me three tips for sleeping better.", "What is 12 times 7?",
    "Who wrote Romeo and Juliet?", "Translate 'good morning' into Spanish.", "What does a thermometer measure?",
    "Name four planets of the solar system.", "How do plants make food?", "What is the opposite of cold?",
    "Write a short thank-you note to a teacher.", "What is a prime number?", "List five fruits.",
    "How do you boil an egg?", "What is the largest ocean?", "Describe a sunset in one sentence.",
    "What is photosynthesis?", "Who was Albert Einstein?", "What is the boiling point of water?",
    "Suggest a name for a black cat.", "What does the heart do?", "How many days are in a leap year?",
    "Tell me a joke about computers.", "What is gravity?", "Which animal is the fastest on land?",
    "Write a sentence with the word 'river'.", "What are the primary colours?", "How does a bicycle stay upright?",
    "What is the currency of Japan?", "Explain what an algorithm is.", "Give a synonym for 'happy'.",
    "What is the chemical symbol of gold?", "How far is the Moon from the Earth?", "What is a noun?",
    "Describe how to make tea.", "What is the tallest mountain?", "Why do we have seasons?",
    "What language is spoken in Brazil?", "Name three musical instruments.", "What is recycling?",
    "How many minutes are in two hours?", "What is a democracy?", "Write a short poem about rain.",
    "What is the freezing point of water?", "What do bees make?", "Who painted the Mona Lisa?",
    "How can I learn to swim?", "What is the square root of 81?", "Describe an elephant.", "What is a volcano?",
    "Give one reason to read books.", "What is the main ingredient of bread?", "How do magnets work?",
    "What is the first month of the year?", "Name two rivers in Europe.", "What is the internet?",
    "How do birds fly?", "What should I pack for a day at the beach?",
)  # fmt: skip
