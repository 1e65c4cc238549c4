"""The words of the simulated shop: a category tree of three levels whose leaves bear a noun and a synonym.

One line a top category; its nine leaves stand in three groups: `group: noun|synonym noun|synonym noun|synonym`.
"""

_TREE = """
kitchen; cookware: pan|skillet pot|casserole wok|stirfryer; tableware: plate|dish bowl|basin cup|mug; pantry: coffee|espresso tea|infusion spice|seasoning
beauty; skin: cream|moisturiser serum|essence soap|cleanser; hair: shampoo|haircare brush|comb dye|tint; makeup: lipstick|rouge mascara|lashes powder|blush
fashion; tops: shirt|blouse sweater|pullover jacket|coat; shoes: sneaker|trainer boot|wellington sandal|slipper; extras: belt|strap scarf|shawl hat|cap
electronics; audio: headphone|earphone speaker|soundbox microphone|mic; mobile: charger|adapter case|cover powerbank|battery; computing: keyboard|keypad mouse|trackball monitor|screen
sport; fitness: dumbbell|weight mat|pad band|resistance; outdoor: tent|shelter backpack|rucksack lamp|torch; nutrition: protein|whey bar|snack drink|isotonic
baby; care: diaper|nappy wipe|towelette lotion|balm; feeding: bottle|feeder bib|apron spoon|ladle; travel: stroller|pram carrier|sling seat|booster
garden; tools: shovel|spade rake|fork pruner|shears; plants: seed|sprout bulb|tuber soil|compost; furniture: bench|pew parasol|umbrella hammock|swing
pets; dog: kibble|dogfood leash|lead basket|bed; cat: litter|sand catfood|tuna scratcher|post; fish: tank|aquarium pump|filter flakes|fishfood
office; paper: notebook|journal envelope|letter label|sticker; writing: pen|ballpoint marker|highlighter pencil|crayon; desk: chair|stool drawer|cabinet lampstand|desklight
toys; building: block|brick puzzle|jigsaw kit|model; games: cards|deck dice|boardgame ball|football; soft: teddy|plush puppet|marionette doll|figurine
home; bedding: pillow|cushion blanket|throw sheet|linen; cleaning: detergent|cleaner sponge|scrubber mop|broom; decor: candle|wax vase|urn frame|picture
books; fiction: novel|story thriller|mystery comic|manga; learning: textbook|manual dictionary|lexicon atlas|maps; leisure: cookbook|recipes guide|travelbook diary|planner
"""  # noqa: E501

# Leaves whose goods are used up and bought again.
CONSUMABLE = frozenset([
    "coffee", "tea", "spice", "cream", "serum", "soap", "shampoo", "dye", "lipstick", "mascara", "powder", "protein", "bar",
    "drink", "diaper", "wipe", "lotion", "seed", "soil", "kibble", "litter", "catfood", "flakes", "notebook", "envelope",
    "label", "pen", "marker", "pencil", "detergent", "sponge", "candle",
])  # fmt: skip
COLOURS = ("black", "white", "red", "blue", "green", "grey", "pink", "beige")
MATERIALS = ("cotton", "steel", "wood", "plastic", "glass", "leather")
_ONSETS = ("b", "d", "f", "k", "l", "m", "n", "r", "s", "t", "v", "z")


def category_tree(top: int) -> list[tuple[str, str, str, str]]:
    """Return the leaves of the first `top` categories as (category, group, noun, synonym), nine a category."""
    leaves = []
    for line in _TREE.strip().splitlines()[:top]:
        category, *groups = (part.strip() for part in line.split(";"))
        for group in groups:
            name, _, nouns = group.partition(":")
            leaves += [(category, name, *noun.split("|")) for noun in nouns.split()]
    return leaves  # type: ignore[return-value]


def brand_name(number: int) -> str:
    """Return the name of a brand: three syllables, unlike for each number below 13,824."""
    syllables = []
    for _ in range(3):
        number, rest = divmod(number, 24)
        syllables.append(_ONSETS[rest // 2] + "ao"[rest % 2])
    return "".join(syllables)


def misspell(word: str, place: int) -> str:
    """Return the word with two neighbouring letters swapped, as hurried fingers do."""
    place %= max(1, len(word) - 1)
    return word[:place] + word[place + 1 : place + 2] + word[place : place + 1] + word[place + 2 :]
