r"""Multiple choice: GPQA's habits, and what must not be taken for one."""

from __future__ import annotations

from tests.adapters.answers.cases import Case

CHOSEN = (
    "\\boxed{C}", "\\boxed{\\text{C}}", "\\boxed{\\textbf{C}}", "\\boxed{\\mathrm{C}}", "\\boxed{(C)}",
    "\\boxed{\\text{(C)}}", "\\boxed{C.}", "\\boxed{C)}", "\\boxed{\\text{C) } 10^{-4}\\text{ eV}}",
    "\\boxed{C) 10^{-4} eV}", "\\boxed{\\textbf{(C)}\\ 10^{-4}}", "\\boxed{C: 10^{-4}}",
    "$\\boxed{\\mathbf{C}}$", "\\boxed{\\text{Option C}}", "\\boxed{\\text{Answer: C}}",
    "\\boxed{ C }", "\\[\\boxed{C}\\]",
    "The correct answer is (C).", "The correct answer is C.", "The correct answer is **C**.",
    "The correct answer is **(C)**.", "The correct answer is **C) 10^-4 eV**.", "The correct answer is: C",
    "The correct answer is:\n\n**C) 10^-4 eV**", "The correct answer is:\n\n(C)",
    "The correct answer is option C.", "The correct answer is option (C).", "The correct answer is Option C: 10^-4 eV",
    "The correct answer is $\\boxed{C}$.", "The correct answer is $C$.", "The correct answer is \\(C\\).",
    "The correct answer is C, since the lifetime is short.", "The correct answer is C because of this.",
    "The correct answer is C - 10^-4 eV", "The correct answer is \"C\".", "The correct answer is `C`.",
    "The correct answer is \\textbf{(C)}.", "The correct answer is $\\text{(C)}$.", "The correct answer is [C].",
    "Answer: C", "Answer: (C)", "Answer: C.", "Answer: C)", "Answer: C) 10^-4 eV", "Answer: **C**",
    "**Answer: C**", "**Answer:** C", "**Answer**: C", "ANSWER: C", "Answer:C", "Answer: $C$", "Answer: C\n\nI hope this helps!",
    "Answer: option C", "Answer: Option C", "The answer is C", "The answer is (C)", "The answer is: C",
    "So the answer would be C.", "The answer should be C.", "The best answer is C.", "My answer is C.",
    "Final answer: C", "**Final Answer:** C", "**Final Answer**\n\nC", "**Final Answer: C**", "Final Answer: (C)",
    "### Answer\n**C**", "The correct choice is C.", "The correct option is C.", "The correct option is **C**.",
    "The correct option is (C) 10^-4 eV.", "The right choice is (C).", "Correct answer: C",
    "Correct option: C", "Option C is correct.", "Option C is the correct answer.", "So option C is right.",
    "option (C) is the right answer", "Choice C is correct.", "C is the correct answer.", "C is the correct option.",
    "(C) is the correct answer.", "**C** is the correct choice.", "I would go with option C.", "I choose C.",
    "We pick option (C).", "Therefore, the correct answer is C.\n", "So the answer is (C), 10^-4 eV.",
    "After elimination only one remains.\n\n**C**", "After elimination only one remains.\n\nC",
    "After elimination only one remains.\n\n(C)", "**C) 10^-4 eV**", "C) 10^-4 eV", "(C) 10^-4 eV",
    "C", "C.", "(C)", "**C**", "This corresponds to option C.", "This matches option (C).", "So it must be (C).",
    "<think>A? No. B? No.</think>\n\nThe answer is C.", "<think>The answer is A.</think>C", "<answer>C</answer>",
    "<answer>(C)</answer>", "答案是C", "答案：C", "The answer is A. Wait, on reflection the answer is C.",
    "A is wrong, B is wrong and D is wrong. Answer: C. Note that this is a tie.",
    "Therefore option C is right, since it has a higher density than a star.", "#### C",
)
NOT_CHOSEN = (
    "This is a dog, and it takes a dog to know a dog.", "Answer: a dog", "The answer is A dog", "The answer is I think unclear",
    "Answer: Although it may be so", "(A) 1 (B) 2 (C) 3 (D) 4", "A) 1\nB) 2\nC) 3\nD) 4", "as in (C) above, it goes on",
    "Vitamin C", "The answer is A.", "Option B is correct.", "\\boxed{D}", "Let us consider option C first.",
    "Is the answer C", "Option C is not correct.", "Option C is incorrect.", "In C, the lifetime", "grade C students",
)
LOWER = ("\\boxed{c}", "\\boxed{\\text{(c)}}", "Answer: c", "answer: (c)", "the answer is (c).", "the answer is c.",
         "option c is correct", "**c)** 12 is the answer: c", "The correct option is c.", "\\boxed{c)}")

OPTIONS = (
    Case("the third option", CHOSEN, NOT_CHOSEN),
    Case(
        "the first option",
        ("\\boxed{A}", "Answer: A", "The answer is A.", "The answer is (A)", "(A)", "**A**", "Answer: **A**",
         "The correct answer is A, as shown.", "Option A is correct.", "\\boxed{\\text{A}}", "The correct choice is (A)."),
        ("A", "Answer: a man", "The answer is a", "A man is an answer", "\\boxed{B}")[1:],
    ),
    Case(
        "beyond D",
        ("\\boxed{J}", "The answer is (J).", "Answer: J", "The answer is J.", "Option J is correct.", "**J**"),
        ("\\boxed{I}", "Answer: I think so"),
    ),
)
SMALL_LETTERS = Case("small letters", (*LOWER, "\\boxed{C}", "Answer: C"), ("Answer: a dog", "Answer: b", "the answer is a c"))
