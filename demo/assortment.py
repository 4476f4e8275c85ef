"""The words of the simulated shop: departments, products, occasions, brands, looks. Data, no logic.

A shelf is a leaf of the category tree; an occasion is what somebody shops *for* on one visit ("trail running") and
takes products from several shelves, as shelves hold products of several occasions.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final


@dataclass(frozen=True, slots=True)
class Shelf:
    """A leaf category. `interval_days` is the time between purchases of a consumable, 0 for what lasts."""

    path: tuple[str, str, str]
    nouns: tuple[str, ...]
    price: float
    materials: tuple[str, ...]
    interval_days: float = 0.0
    age_restricted: bool = False


def _shelf(path: str, nouns: str, price: float, materials: str, days: float = 0.0, adult: bool = False) -> Shelf:
    department, aisle, leaf = path.split(" > ")
    return Shelf((department, aisle, leaf), tuple(nouns.split(", ")), price, tuple(materials.split(", ")), days, adult)


SHELVES: Final[dict[str, Shelf]] = {
    "jackets": _shelf("Clothing > Outerwear > Jackets", "Jacket, Parka, Anorak", 119, "nylon, wool, softshell"),
    "knitwear": _shelf("Clothing > Tops > Knitwear", "Jumper, Cardigan", 69, "merino, cotton, cashmere"),
    "shirts": _shelf("Clothing > Tops > Shirts", "Shirt, T-Shirt, Polo", 39, "cotton, linen, jersey"),
    "trousers": _shelf("Clothing > Bottoms > Trousers", "Trousers, Shorts, Leggings", 59, "cotton, nylon, denim"),
    "dresses": _shelf("Clothing > Dresses > Dresses", "Dress, Skirt", 79, "linen, silk, cotton"),
    "socks": _shelf("Clothing > Basics > Socks", "Socks, Base Layer", 15, "merino, cotton", 60),
    "trainers": _shelf("Shoes & Bags > Shoes > Trainers", "Shoe, Trainer", 109, "mesh, leather, knit"),
    "boots": _shelf("Shoes & Bags > Shoes > Boots", "Boot, Ankle Boot", 139, "leather, suede, rubber"),
    "backpacks": _shelf("Shoes & Bags > Bags > Backpacks", "Backpack, Daypack", 89, "nylon, canvas, leather"),
    "handbags": _shelf("Shoes & Bags > Bags > Handbags", "Tote, Shoulder Bag, Pouch", 99, "leather, canvas"),
    "hats": _shelf("Clothing > Accessories > Hats", "Cap, Beanie, Sun Hat", 29, "wool, cotton, straw"),
    "gloves": _shelf("Clothing > Accessories > Gloves", "Gloves, Mittens", 35, "leather, fleece, wool"),
    "jewellery": _shelf(
        "Clothing > Accessories > Jewellery", "Necklace, Bracelet, Earrings", 49, "silver, brass, gold"
    ),
    "bottles": _shelf("Sports & Outdoors > Equipment > Bottles", "Bottle, Flask", 25, "steel, glass, tritan"),
    "tents": _shelf("Sports & Outdoors > Camping > Tents", "Tent, Tarp, Hammock", 229, "nylon, canvas"),
    "sleeping": _shelf("Sports & Outdoors > Camping > Sleeping", "Sleeping Bag, Mat", 129, "down, foam"),
    "mats": _shelf("Sports & Outdoors > Fitness > Mats", "Mat, Block, Bolster", 45, "cork, foam, rubber"),
    "weights": _shelf("Sports & Outdoors > Fitness > Weights", "Kettlebell, Dumbbells, Band", 55, "iron, rubber"),
    "bikeparts": _shelf("Sports & Outdoors > Cycling > Parts", "Saddle, Lock, Pump, Light", 49, "steel, carbon"),
    "helmets": _shelf("Sports & Outdoors > Protection > Helmets", "Helmet, Goggles", 89, "foam, carbon"),
    "nutrition": _shelf("Sports & Outdoors > Nutrition > Energy", "Energy Bars, Protein Powder", 29, "oat, whey", 24),
    "watches": _shelf("Electronics > Wearables > Watches", "Watch, Tracker", 179, "steel, silicone"),
    "headphones": _shelf("Electronics > Audio > Headphones", "Headphones, Earbuds", 129, "plastic, aluminium"),
    "speakers": _shelf("Electronics > Audio > Speakers", "Speaker, Radio", 149, "wood, plastic, fabric"),
    "cameras": _shelf("Electronics > Photo > Cameras", "Camera, Lens, Tripod", 349, "aluminium, carbon"),
    "keyboards": _shelf("Electronics > Computing > Keyboards", "Keyboard, Mouse, Dock", 89, "aluminium, plastic"),
    "cables": _shelf("Electronics > Computing > Power", "Charger, Cable, Power Bank", 35, "nylon, plastic"),
    "lamps": _shelf("Home & Kitchen > Lighting > Lamps", "Lamp, Lantern", 69, "brass, paper, glass"),
    "furniture": _shelf("Home & Kitchen > Furniture > Seating", "Chair, Stool, Bench", 189, "oak, steel, rattan"),
    "storage": _shelf("Home & Kitchen > Storage > Boxes", "Basket, Box, Shelf", 39, "rattan, oak, felt"),
    "textiles": _shelf("Home & Kitchen > Textiles > Throws", "Throw, Cushion, Blanket", 55, "wool, linen, cotton"),
    "bedding": _shelf("Home & Kitchen > Textiles > Bedding", "Duvet Cover, Pillow, Sheet", 79, "linen, percale"),
    "cookware": _shelf("Home & Kitchen > Cooking > Pans", "Pan, Casserole, Wok", 95, "iron, steel, copper"),
    "knives": _shelf("Home & Kitchen > Cooking > Knives", "Knife, Board, Peeler", 65, "steel, walnut"),
    "bakeware": _shelf("Home & Kitchen > Cooking > Baking", "Tin, Whisk, Mixing Bowl", 29, "steel, ceramic"),
    "tableware": _shelf("Home & Kitchen > Table > Tableware", "Bowl, Plate Set, Mug", 35, "stoneware, porcelain"),
    "glasses": _shelf("Home & Kitchen > Table > Glasses", "Glass Set, Carafe", 39, "crystal, glass"),
    "brewers": _shelf(
        "Home & Kitchen > Coffee & Tea > Brewers", "Brewer, Grinder, Kettle", 99, "steel, glass, ceramic"
    ),
    "candles": _shelf("Home & Kitchen > Decoration > Candles", "Candle, Diffuser Refill", 24, "soy, beeswax", 40),
    "prints": _shelf("Home & Kitchen > Decoration > Prints", "Print, Frame, Vase", 45, "paper, oak, glass"),
    "cleaning": _shelf(
        "Home & Kitchen > Household > Cleaning", "Soap Refill, Cleaner, Tabs", 14, "citrus, lavender", 28
    ),
    "tools": _shelf("Garden & DIY > Tools > Hand Tools", "Trowel, Secateurs, Saw", 32, "steel, ash"),
    "planters": _shelf("Garden & DIY > Plants > Planters", "Planter, Pot, Trellis", 42, "terracotta, zinc"),
    "seeds": _shelf("Garden & DIY > Plants > Seeds", "Seeds, Soil, Plant Food", 9, "organic, mixed", 35),
    "grills": _shelf("Garden & DIY > Outdoor > Grills", "Grill, Fire Bowl, Smoker", 199, "iron, steel"),
    "fiction": _shelf("Books & Hobbies > Books > Fiction", "Novel, Stories, Anthology", 16, "paperback, hardback"),
    "guides": _shelf("Books & Hobbies > Books > Guides", "Handbook, Guide, Atlas", 24, "paperback, hardback"),
    "games": _shelf("Books & Hobbies > Games > Board Games", "Board Game, Puzzle, Card Game", 34, "card, wood"),
    "art": _shelf("Books & Hobbies > Craft > Art Supplies", "Paint Set, Brush Set, Sketchbook", 27, "paper, sable", 50),
    "yarn": _shelf("Books & Hobbies > Craft > Yarn", "Yarn, Needles, Hoop", 19, "merino, alpaca, bamboo", 30),
    "music": _shelf("Books & Hobbies > Music > Instruments", "Ukulele, Strings, Tuner", 79, "maple, spruce"),
    "skincare": _shelf("Beauty & Health > Face > Skincare", "Face Cream, Serum, Cleanser", 32, "aloe, oat, rose", 35),
    "haircare": _shelf("Beauty & Health > Hair > Hair Care", "Shampoo, Conditioner, Hair Oil", 19, "argan, mint", 30),
    "fragrance": _shelf("Beauty & Health > Fragrance > Perfume", "Eau de Parfum, Cologne", 75, "cedar, citrus, amber"),
    "makeup": _shelf("Beauty & Health > Face > Make-up", "Lipstick, Mascara, Palette", 26, "vegan, mineral", 55),
    "vitamins": _shelf("Beauty & Health > Wellbeing > Vitamins", "Vitamins, Magnesium, Omega", 22, "vegan, marine", 30),
    "toys": _shelf("Baby & Kids > Toys > Wooden Toys", "Train Set, Blocks, Puppet", 39, "beech, felt"),
    "babycare": _shelf("Baby & Kids > Care > Nappies", "Nappies, Wipes, Baby Balm", 21, "bamboo, cotton", 18),
    "nursery": _shelf("Baby & Kids > Nursery > Sleep", "Cot Mobile, Sleepsuit, Swaddle", 45, "muslin, cotton"),
    "coffee": _shelf("Food & Drink > Hot Drinks > Coffee", "Coffee Beans, Espresso Blend", 15, "arabica, robusta", 21),
    "tea": _shelf("Food & Drink > Hot Drinks > Tea", "Green Tea, Black Tea, Infusion", 12, "leaf, herb", 28),
    "pantry": _shelf(
        "Food & Drink > Pantry > Oils & Spices", "Olive Oil, Spice Mix, Flour", 13, "organic, stone-ground", 32
    ),
    "sweets": _shelf(
        "Food & Drink > Sweets > Chocolate", "Chocolate, Pralines, Biscuits", 11, "dark, milk, hazelnut", 20
    ),
    "wine": _shelf("Food & Drink > Wine & Spirits > Wine", "Red Wine, Riesling, Gin", 22, "oak, dry", 30, adult=True),
    "petfood": _shelf("Pets > Food > Dry Food", "Dry Food, Treats", 27, "salmon, chicken, lamb", 22),
    "petgear": _shelf("Pets > Gear > Beds & Leads", "Lead, Bed, Scratching Post", 45, "wool, leather, sisal"),
    "paper": _shelf("Office & School > Writing > Paper", "Notebook, Planner, Ink", 14, "paper, leather", 45),
    "pens": _shelf("Office & School > Writing > Pens", "Fountain Pen, Pencil Set", 35, "brass, resin, cedar"),
    "desks": _shelf("Office & School > Desks > Accessories", "Desk Mat, Monitor Stand, Tray", 55, "felt, oak, cork"),
    "luggage": _shelf("Shoes & Bags > Bags > Luggage", "Suitcase, Weekender, Packing Cubes", 149, "canvas, aluminium"),
}

OCCASIONS: Final[tuple[tuple[str, str], ...]] = (
    ("Trail Running", "jackets trainers socks bottles nutrition watches"),
    ("Winter Hiking", "jackets boots gloves backpacks socks guides"),
    ("Family Camping", "tents sleeping lamps bottles cookware games"),
    ("Bike Commute", "bikeparts helmets backpacks jackets trousers"),
    ("Home Gym", "weights mats nutrition headphones shirts"),
    ("Morning Yoga", "mats trousers candles tea shirts"),
    ("Ski Weekend", "helmets gloves jackets knitwear socks"),
    ("Beach Holiday", "hats dresses shirts handbags fiction luggage"),
    ("City Break", "luggage guides trainers cameras handbags"),
    ("Street Photography", "cameras backpacks guides prints"),
    ("Home Cinema", "speakers lamps sweets textiles headphones"),
    ("Late Night Gaming", "keyboards headphones games furniture cables"),
    ("Home Office", "desks keyboards furniture lamps paper cables"),
    ("First Apartment", "storage cookware bedding furniture lamps"),
    ("Cosy Bedroom", "bedding textiles candles lamps prints"),
    ("Barista", "coffee brewers tableware sweets"),
    ("Afternoon Tea", "tea tableware sweets bakeware textiles"),
    ("Sourdough", "bakeware pantry cookware guides"),
    ("Asian Kitchen", "cookware pantry knives tableware"),
    ("Garden Party", "grills glasses lamps wine tableware"),
    ("Wine Evening", "wine glasses candles knives"),
    ("Balcony Garden", "planters seeds tools guides lamps"),
    ("Kitchen Herbs", "seeds planters pantry tools"),
    ("Workshop", "tools storage gloves guides cleaning"),
    ("Newborn", "nursery babycare textiles skincare"),
    ("Toddler Play", "toys games art fiction"),
    ("School Start", "backpacks paper pens bottles art"),
    ("Family Game Night", "games sweets furniture toys"),
    ("Watercolour", "art guides paper lamps"),
    ("Slow Knitting", "yarn storage tea guides"),
    ("Calligraphy", "pens paper art prints"),
    ("Campfire Songs", "music speakers guides jackets"),
    ("Sensitive Skin", "skincare haircare cleaning textiles"),
    ("Evening Glamour", "makeup fragrance jewellery dresses handbags"),
    ("Gentleman Grooming", "haircare fragrance skincare shirts"),
    ("Winter Wellness", "vitamins tea socks bedding"),
    ("Marathon Plan", "nutrition vitamins trainers watches trousers"),
    ("Puppy", "petfood petgear toys cleaning"),
    ("House Cat", "petfood petgear textiles"),
    ("Summer Wedding", "dresses shirts jewellery fragrance hats"),
    ("Autumn Layers", "knitwear boots hats trousers jackets"),
    ("Business Travel", "luggage shirts cables headphones fragrance"),
    ("Crime Weekend", "fiction tea textiles wine"),
    ("Science Fiction", "fiction games prints headphones"),
    ("Zero Waste", "cleaning haircare storage bottles pantry"),
    ("Gift Under Twenty", "candles sweets paper games tableware"),
    ("Housewarming", "prints glasses candles planters wine"),
    ("Kids Party", "sweets toys tableware art hats"),
)
"""An occasion and the shelves that it takes from."""

SERIES: Final[tuple[str, ...]] = (
    "",
    "Travel",
    "Studio",
    "Nordic",
    "Essential",
    "Alpine",
    "Coastal",
    "Urban",
    "Vintage",
    "Kids",
    "Pro",
    "Country",
)
"""Front words that make further occasions for a large catalogue."""

_BRANDS = (
    "Northfell, Casa Lume, Brindle & Co, Okami, Fernhill, Atelier Vey, Hartmoor, Solvik, Pebble, Kestrel, "
    "Marlowe, Tindra, Oru, Bexley, Juniper & Ash, Ravello, Stonegate, Mikkeli, Halden, Quill, Saffron "
    "Lane, Vantage, Wren, Corvo, Lumen, Ostara, Petrel, Redwick, Sable, Tamarind, Umbra, Vesper, Willow "
    "Row, Yarrow, Zephyr, Alder, Borealis, Cinder, Dovetail, Everly"
)
BRANDS: Final[tuple[str, ...]] = tuple(_BRANDS.split(", "))

LOOKS: Final[dict[str, tuple[tuple[str, ...], tuple[str, ...]]]] = {
    "classic": (("Heritage", "Oxford", "Windsor", "Regent"), ("navy", "burgundy", "cream")),
    "minimal": (("One", "Plain", "Line", "Mono"), ("white", "black", "grey")),
    "sporty": (("Aero", "Sprint", "Pulse", "Dash"), ("neon yellow", "blue", "red")),
    "playful": (("Pop", "Confetti", "Doodle", "Hop"), ("pink", "turquoise", "yellow")),
    "rustic": (("Barn", "Meadow", "Hearth", "Orchard"), ("olive", "brown", "ochre")),
    "elegant": (("Soirée", "Opal", "Grace", "Noir"), ("gold", "black", "emerald")),
    "technical": (("Pro", "X2", "Vector", "Core"), ("graphite", "orange", "blue")),
    "retro": (("1972", "Disco", "Polaroid", "Jukebox"), ("mustard", "teal", "rust")),
}
"""A look, its model names and its colours."""

COUNTRIES: Final[dict[str, float]] = {"GB": 0.34, "DE": 0.2, "FR": 0.14, "NL": 0.1, "DK": 0.08, "ES": 0.08, "IE": 0.06}
GENDERS: Final[dict[str, float]] = {"female": 0.53, "male": 0.44, "diverse": 0.03}
